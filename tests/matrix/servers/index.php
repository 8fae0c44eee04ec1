pid <?= getmypid() ?>

